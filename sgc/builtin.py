"""The table of built-in parts: what each name stands for, by kind."""

#: Adding a built-in: write its file, add its line.
BUILTIN: dict[str, dict[str, str]] = {
    "projection": {
        "gaussian": "projections.gaussian:Gaussian",
        "identity": "projections.identity:Identity",
        "rademacher": "projections.rademacher:Rademacher",
        "srht": "projections.srht:SRHT",
    },
    "recovery": {
        "auto": "recovery.auto:Auto",
        "cosamp": "recovery.cosamp:CoSaMP",
        "iht": "recovery.iht:IHT",
        "niht": "recovery.niht:NIHT",
        "omp": "recovery.omp:OMP",
        "omp-cupy": "recovery.omp_cupy:CupyOMP",
        "omp-inverse-cholesky": "recovery.omp_inverse_cholesky:InverseCholeskyOMP",
    },
    "chunker": {
        "contiguous": "sgc.chunkers.contiguous:Contiguous",
        "permuted": "sgc.chunkers.permuted:Permuted",
        "strided": "sgc.chunkers.strided:Strided",
    },
    "decode": {
        "joint": "sgc.decodes.joint:Joint",
        "literal": "sgc.decodes.literal:Literal",
    },
    "rule": {
        "adam": "sgc.rules.adam:Adam",
        "adam-mini": "sgc.rules.adam_mini:AdamMini",
        "momentum": "sgc.rules.momentum:Momentum",
        "proximal": "sgc.rules.proximal:Proximal",
    },
    "residual": {
        "apollo": "sgc.residuals.apollo:Apollo",
        "fira": "sgc.residuals.fira:Fira",
        "normalised": "sgc.residuals.normalised:Normalised",
        "raw": "sgc.residuals.raw:Raw",
        "sign": "sgc.residuals.sign:Sign",
    },
    "source": {
        "random": "sgc.sources.random:Random",
        "svd": "sgc.sources.svd:SVD",
    },
    "compressor": {
        "adam-mini": "sgc.compressors.none:AdamMini",
        "apollo": "sgc.compressors.apollo:Apollo",
        "cesgc": "sgc.compressors.cesgc:CESGC",
        "fira": "sgc.compressors.fira:Fira",
        "frugal": "sgc.compressors.frugal:Frugal",
        "galore": "sgc.compressors.galore:GaLore",
        "mesgc": "sgc.compressors.mesgc:MESGC",
        "none": "sgc.compressors.none:NoCompression",
        "normalised-sgd": "sgc.compressors.stateless:NormalisedSGD",
        "proximal-sgd": "sgc.compressors.none:ProximalSGD",
        "sgc": "sgc.compressors.sgc:SGC",
        "sgd": "sgc.compressors.stateless:SGD",
        "sgd-momentum": "sgc.compressors.none:SGDMomentum",
        "sign-sgd": "sgc.compressors.stateless:SignSGD",
        "subspace": "sgc.compressors.subspace:Subspace",
    },
}
