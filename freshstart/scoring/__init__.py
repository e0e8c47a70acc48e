"""From the corpus to the scored table: segments, the table's schema, the pool of workers and the parts they keep."""
