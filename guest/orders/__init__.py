"""What each memory type permits of a payload and its doorbell: modelled, for the matrix. Nothing here is seen."""
