"""Whether a backend does what backends promise: the check behind `fastapi_maintenance.testing.check_backend`."""
