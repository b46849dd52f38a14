"""One module a verb of the command line, imported when the verb is used, and beside them what several verbs share."""
