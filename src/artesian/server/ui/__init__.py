"""The dashboard: pages in a browser, on the application of ``artesian serve``.

NiceGUI takes memory and a second to load: only ``dashboard.mount`` imports it, and only when it is asked for.
"""
