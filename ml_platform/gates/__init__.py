"""What must hold of data before anything expensive reads it."""
