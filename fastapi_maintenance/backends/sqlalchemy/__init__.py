"""A backend in a table of any database that has an async SQLAlchemy driver."""

from fastapi_maintenance.backends.sqlalchemy.backend import SQLAlchemyBackend
from fastapi_maintenance.backends.sqlalchemy.table import maintenance_table

__all__ = ["SQLAlchemyBackend", "maintenance_table"]
