"""Which endpoint will answer this request: layers, routes, and the index of both."""
