"""An admin API to include in the app: see the switch, set it, and let people in while maintenance is on."""

from fastapi_maintenance.router.admin import maintenance_router

__all__ = ["maintenance_router"]
