"""Find which endpoint will answer a request: the finder, and the layers and routes that it searches."""
