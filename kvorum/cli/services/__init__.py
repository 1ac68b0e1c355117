"""``kvorum service``: what is asked of the list (``listing``), and an entry kept on it (``registering``)."""
