"""The web page and HTTP interface around the whole system: ``ffavatar serve``. docs/serve.md describes both.

    app.py (routes) -> jobs.py (queue, events) -> child.py -> worker.py   a process with the model, one per device
                       tasks.py (what each kind of job asks for)
                    -> checks.py               -> child.py -> checker.py  a process that decodes what was uploaded
                    -> store.py, uploads.py (disk)

The server's own process decodes nothing and imports no torch. Its children speak JSON lines (``messages.py``).
FastAPI and its companions are imported where they are used: the package imports without them.
"""
