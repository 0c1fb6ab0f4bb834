"""How cost grows: the same work at three sizes, and the line through what it cost."""
