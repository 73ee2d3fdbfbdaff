//! Path normalisation before matching (`meshConfig.pathNormalization`).
