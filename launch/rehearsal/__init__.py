"""A rehearsal of the whole way, from raw files and published weights to a score and an export."""
