"""What an exact verification is, for the tests."""

from memscope.lifetimes.completeness import measure_completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.recording import Recording
from memscope.replay.verify._state import PinnedState
from memscope.replay.verify.verify import verify
from memscope.trace.schema import TieRule


def assert_exact(trace):
    """What was inferred on the way."""
    result = verify(trace)
    assert result.first_divergence is None, str(result.first_divergence)
    assert result.exact
    assert measure_completeness(trace, [DeviceLifetimes(trace, 0)]).contradictions == ()
    return result.devices[0].inferred


def state_before(trace):
    """The state before the first event, under the trace's own settings."""
    recording = Recording(DeviceLifetimes(trace, 0))
    tie_rule = TieRule.SEGMENT_AGE if trace.metadata.tie_rule is None else trace.metadata.tie_rule
    return PinnedState.before(recording, CachingAllocatorConfig.from_trace(trace, 0), tie_rule)
