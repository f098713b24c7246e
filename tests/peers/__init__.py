"""Our methods against their authors' packages: the same weights and gradients, step by step.

    pip install --no-deps galore-torch apollo-torch fira adam-mini flora-opt  # the extra `peers`
    pytest tests/peers

Without the packages these tests are skipped. `--no-deps`, because the packages ask for bitsandbytes
(only for their 8-bit classes, so a stub does here) and others that they do not import; transformers
and accelerate come with the extras `demo` and `studies`. FRUGAL has no package.

What is compared: float64 weights after every one of 25 steps on given gradients, mostly as a
difference relative to how far the weights have moved by then. GaLore, Fira and APOLLO get a new
subspace at steps 11 and 21. What their packages do otherwise, and how that is kept out:

* Their bases come from an SVD, or a generator, in float32. They are handed to our method, by a
  :class:`tests.peers.common.TheirBases` as its source; that ours are right is tested elsewhere
  (`tests/test_low_rank.py`) and once in `test_galore.py`.
* The sign of a singular vector is free. After a refresh the packages take LAPACK's, while ours
  keeps the old vector's, as moments go on in its coordinates. The same hand-over covers it.
* They add ε to √V before bias correction: ε is 1e-12 and gradients are of the size 1e4, so that no
  ε shows.
* They add 1e-8 to the norms that they divide by. Beside gradients that does not show; beside the
  norm that the limiter keeps it is what is left of a difference, see there.
* They decay weights after the step. There is no decay here.
"""
