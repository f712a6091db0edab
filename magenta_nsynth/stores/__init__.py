"""Files on a disk, in an object store or on a web server, by path."""
