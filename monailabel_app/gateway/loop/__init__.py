"""GET /loop: a page that shows how the active-learning loop goes. Numbers, then plots of them, then the page."""
