from feste_dp.api.loading import load as load
from feste_dp.api.loading import new as new
from feste_dp.api.model import Model as Model
from feste_dp.api.training import Step as Step
from feste_dp.api.training import Training as Training
from feste_dp.api.training import resume as resume
from feste_dp.api.training import train as train
from feste_dp.errors import RunError as RunError
from feste_dp.errors import UsageError as UsageError

__version__: str
