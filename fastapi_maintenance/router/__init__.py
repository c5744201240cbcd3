"""Routers to include in the app: an admin API for operators, the bypass, and a public notice for visitors."""

from fastapi_maintenance.router.admin import maintenance_router
from fastapi_maintenance.router.bypass import bypass_router
from fastapi_maintenance.router.notice import maintenance_notice

__all__ = ["bypass_router", "maintenance_notice", "maintenance_router"]
