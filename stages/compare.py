"""compare: lay the cells of all tasks, objectives and seeds side by side, in tables and on one page.

    python -m stages.compare --metrics reports/metrics --samples reports/samples --curves reports/curves \\
        --scores reports/scores --corpora reports/corpus --scorers reports/scorer --heldout reports/heldout \\
        --warnings reports/warnings --summary reports/summary.json --cells reports/cells.csv \\
        --curve-table reports/curves.csv --histograms reports/histograms.csv --page reports/index.html

Reads scale, tasks, objectives, seeds and finetuned arms of params.yaml, and of the folders exactly the cells that these
name.
"""

from freshstart import files, params
from freshstart.doors import arguments, open_door


def main() -> None:
    paths = arguments(
        __doc__,
        metrics="folder of the cells' metrics",
        samples="folder of the cells' samples",
        curves="folder of the cells' training curves",
        scores="folder of the tasks' score reports",
        corpora="folder of the tasks' corpus reports",
        scorers="folder of the tasks' scorer reports",
        heldout="folder of the tasks' reports on held-out text",
        warnings="folder of the warnings of the tasks' data",
        summary="file for the few numbers of `dvc exp show` (JSON)",
        cells="file for the metrics of every cell (CSV)",
        curve_table="file for all training curves (CSV)",
        histograms="file for the histograms of the segments' scores (CSV)",
        page="file for the page (HTML)",
    )
    root = params.load().root

    from freshstart.reporting import page, tables
    from freshstart.reporting.cells import read

    tasks = read(vars(paths), root)
    html = page.build(root, tasks)
    tables.write_csv(paths.cells, tables.cell_rows(tasks))
    tables.write_csv(paths.curve_table, tables.curve_rows(tasks))
    tables.write_csv(paths.histograms, tables.histogram_rows(tasks))
    files.write_json(paths.summary, tables.summary(tasks))
    files.write_text(paths.page, html)
    for task in tasks:
        for warning in task.warnings:
            print(f"warning: {task.name}: {warning}")
    cells = len(root.tasks) * len([*root.objectives, *root.arms]) * len(root.seeds)
    print(f"{cells} cells compared: {paths.page}, {len(html.encode()) / 1e6:.2f} MB")


if __name__ == "__main__":
    open_door(main)
