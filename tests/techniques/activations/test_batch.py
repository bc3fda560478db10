import numpy as np

from memscope.techniques.activations._batch import batch_of, grows
from memscope.techniques.program import Program
from memscope.trace.categories import Category
from tests.techniques.programs import train


def test_samples_and_tokens_are_those_of_the_input():
    program = Program.of(train(8, 64))
    assert batch_of(program, program.passes[0], "t") == (batch := batch_of(program, program.passes[1], "t"))
    assert (batch.n_samples, batch.n_tokens) == (8, 512)


def test_what_grows_is_what_differs_between_two_batches():
    """The same pass with twice the samples: what is twice the size is what was said to grow."""
    one, two = (Program.of(train(n, 128)) for n in (32, 64))
    each, other = one.passes[1], two.passes[1]
    rows = np.flatnonzero((one.begin >= each.forward) & (one.begin < each.end) & one.is_made)
    others = np.flatnonzero((two.begin >= other.forward) & (two.begin < other.end) & two.is_made)
    rows, others = (r[np.argsort(p.begin[r])] for r, p in ((rows, one), (others, two)))
    said = grows(one, each, batch_of(one, each, "t"))[rows]
    # What a reduction takes beside its tensors goes in steps: its buffer has its semaphores behind it.
    sizes = one.size_bytes[rows]
    is_clear = (sizes >= 1 << 16) & (np.append(sizes[1:], 0) > 512)
    assert len(rows) == len(others)
    doubled = two.size_bytes[others] == 2 * sizes
    assert np.array_equal(said[is_clear], doubled[is_clear])
    assert said[is_clear].any()
    assert not said[is_clear].all()
    assert not said[one.category[rows] == Category.GRADIENTS].any()
