"""Small helpers at the bottom: they know nothing else of the package."""
