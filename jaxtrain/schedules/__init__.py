"""Learning-rate schedules: functions `count -> value` of the number of updates made so far.

Update k, from 0, uses `schedule(k)`. Every schedule is defined for every count >= 0 and gives
the default float type; counts are integers of any kind, scalars or arrays.
"""

from ._base import Schedule as Schedule
from ._base import as_schedule as as_schedule
from ._base import constant as constant
from ._compose import join as join
from ._compose import warmup as warmup
from ._decay import cosine as cosine
from ._decay import step_decay as step_decay
