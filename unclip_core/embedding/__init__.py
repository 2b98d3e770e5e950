"""Operations on CLIP embeddings: arithmetic, PCA, ranking, description in words, files."""
