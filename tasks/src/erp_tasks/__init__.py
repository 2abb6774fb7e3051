"""The ERP's slow work as background tasks: a Celery worker, and an API that starts tasks and shows their progress."""
