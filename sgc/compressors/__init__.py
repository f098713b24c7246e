"""What stands between a gradient and its moments: f and g of ``W ← W − η·g(ρ(f(G)))``.

One method, one file. :mod:`sgc.compressors.base` holds the contract,
:mod:`~sgc.compressors.measured` what sketches share. Two of the files are also the
building blocks of others: :mod:`~sgc.compressors.mesgc` (the sketch) and
:mod:`~sgc.compressors.subspace` (a low-rank stage in front of any compressor).
"""
