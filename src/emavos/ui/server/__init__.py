"""The page's HTTP server, a thin layer over `Desk`. Requires starlette: import these modules only to serve.

`app` lists the paths. `frames`, `project` and `clips` answer the requests, `requests` reads them, and
`answers` sends results and errors. `emavos.ui.guard` decides who may ask at all.
"""
