"""Learning-rate schedules: functions `count -> value` of the number of updates made so far.

Update k, from 0, uses `schedule(k)`. Every schedule is defined for every count >= 0 and gives
the default float type; counts are integers of any kind, scalars or arrays.
"""

from ._anneal import cosine as cosine
from ._anneal import linear as linear
from ._anneal import linear_to as linear_to
from ._anneal import polynomial as polynomial
from ._base import Schedule as Schedule
from ._base import as_schedule as as_schedule
from ._base import constant as constant
from ._compose import goyal_warmup as goyal_warmup
from ._compose import join as join
from ._compose import scale_with_batch as scale_with_batch
from ._compose import stretch as stretch
from ._compose import warmup as warmup
from ._cyclic import cyclic as cyclic
from ._cyclic import one_cycle as one_cycle
from ._cyclic import sgdr as sgdr
from ._cyclic import snapshot as snapshot
from ._cyclic import triangular as triangular
from ._decay import exponential as exponential
from ._decay import inverse_power as inverse_power
from ._decay import inverse_sqrt as inverse_sqrt
from ._decay import inverse_time as inverse_time
from ._decay import multi_step as multi_step
from ._decay import step_decay as step_decay
from ._robbins_monro import RobbinsMonro as RobbinsMonro
from ._robbins_monro import check_robbins_monro as check_robbins_monro
