"""The Celery app: broker, queues, and the settings that keep tasks from getting lost."""

from celery import Celery
from kombu.entity import Exchange, Queue

from erp_tasks import config

settings = config.load()

# Beside the visibility timeout: a broker that does not answer must be noticed, here and in the API.
_TRANSPORT = {
    "visibility_timeout": settings.visibility_timeout,
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 30,
}

app = Celery("erp_tasks", broker=settings.broker, backend=settings.results, include=["erp_tasks.reports"])
app.conf.update(
    # Each with an exchange and a key of its own: Celery would give all of them those of the default queue.
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in config.QUEUES],  # type: ignore[no-untyped-call]
    task_default_queue="reports",
    task_create_missing_queues=False,
    task_routes={f"backend.tasks.{name}.*": {"queue": name} for name in config.QUEUES},
    # A task is acknowledged when it is done; one whose worker died is handed out again (job.py caps how often).
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    task_track_started=True,
    task_soft_time_limit=settings.soft_time_limit,
    task_time_limit=settings.time_limit,
    # The shortest of these three wins; all have to outlast the time limit.
    broker_transport_options=_TRANSPORT,
    result_backend_transport_options=_TRANSPORT,
    visibility_timeout=settings.visibility_timeout,
    # A stop waits this long for running tasks and then gives them back to the broker at once.
    worker_soft_shutdown_timeout=settings.shutdown_timeout,
    worker_send_task_events=True,
    task_send_sent_event=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_pool_acquire_timeout=5,
    redis_socket_keepalive=True,
    redis_socket_timeout=10,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_expires=7 * 86400,
    timezone="UTC",
)
