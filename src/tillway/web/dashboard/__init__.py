"""The dashboard: pages for the people who run a shop and those who run Tillway, from the same process as the API.

`app.py` answers a request of a browser: session, forgery, headers. A page is a function in the file of its noun; it
asks the API's own calls through `door.py`, with the rights of the operator who has signed in, and has no other way to
a record. `templates/` are Jinja2, `static/` the style and the one module; nothing is built.
"""
