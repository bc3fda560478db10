"""The views, in the order of the navigation."""

from memscope_dashboard.view import View
from memscope_dashboard.views import (
    address_map,
    allocations,
    canvas,
    compare,
    device,
    flame,
    fragmentation,
    kv,
    overview,
    ranks,
    replay,
    timeline,
    whatif,
)

VIEWS: tuple[View, ...] = (
    overview.VIEW,
    canvas.VIEW,
    timeline.VIEW,
    address_map.VIEW,
    flame.VIEW,
    allocations.VIEW,
    fragmentation.VIEW,
    replay.VIEW,
    whatif.VIEW,
    compare.VIEW,
    kv.VIEW,
    device.VIEW,
    ranks.VIEW,
)
"""Every view that the app has."""
