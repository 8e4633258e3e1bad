"""Published rules other than CERO, one file each."""
