"""Routers to include in the app: an admin API for operators, and a public notice for visitors."""

from fastapi_maintenance.router.admin import maintenance_router
from fastapi_maintenance.router.notice import maintenance_notice

__all__ = ["maintenance_notice", "maintenance_router"]
