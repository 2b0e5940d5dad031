"""All surfaces by name."""

from hostile import archives, folders, settings, study_files, tables, weights

SURFACES = {
    "settings": settings,
    "study-files": study_files,
    "archives": archives,
    "tables": tables,
    "weights": weights,
    "folders": folders,
}
