"""The state in a table of any database that SQLAlchemy speaks to asynchronously."""

from fastapi_maintenance.backends.sqlalchemy.backend import SQLAlchemyBackend
from fastapi_maintenance.backends.sqlalchemy.table import maintenance_table

__all__ = ["SQLAlchemyBackend", "maintenance_table"]
