"""What a view is: a name, a place in the navigation, a layout, and its wiring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dash import Dash
from dash.development.base_component import Component

from memscope_dashboard.store import TraceStore


@dataclass(frozen=True, slots=True)
class View:
    """One view of the dashboard.

    Attributes
    ----------
    name
        In addresses and ids: ``timeline``.
    title
        In the navigation.
    layout
        Makes its components, without any data.
    register
        Wires them to an app whose traces are in a store.
    """

    name: str
    title: str
    layout: Callable[[], Component]
    register: Callable[[Dash, TraceStore], None]
