"""Reporting: from the files that the other stages leave behind to tables, figures and one page. It reads files only."""
