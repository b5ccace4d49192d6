# Nothing is needed here.
