"""For `rq cron`."""

from jobs import tidy_baskets
from rq import cron

cron.register(tidy_baskets, queue_name="default", interval=1)
