"""What may be asked, the doors to upstream, and the way back of the answer."""
