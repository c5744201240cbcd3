"""Which endpoint will answer this request: its finder, and the layers and routes that this looks through."""
