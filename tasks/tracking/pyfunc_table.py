"""Answer with a table's rows as an MLflow model: text embeddings, or ACPT's context vectors.

It needs only pandas.
"""

from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel


class Table(PythonModel):  # type: ignore[misc]
    """Returns the rows that a request names by its only column."""

    _skip_type_hint_validation = True  # else MLflow warns at every load: type hints can't describe our table

    def load_context(self, context: Any) -> None:
        """Read the table from the logged artifact."""
        import pandas as pd

        self.table = pd.read_parquet(context.artifacts["table"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # hints ask for a signature
        """Return the named rows; all of them for an empty table.

        Args:
            model_input: a table, or a list of records, with values of the column that the signature names.

        Raises:
            MlflowException: the table has no row of a value.
        """
        import pandas as pd

        asked = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        column = next((name for name in asked if name in self.table), None)
        values = [] if column is None else asked[column].dropna().tolist()
        if not values:
            return self.table
        if unknown := sorted({str(value) for value in values} - {*self.table[column].map(str)}):
            known = ", ".join(dict.fromkeys(self.table[column].map(str)))
            raise MlflowException(
                f"There is no {column} {', '.join(unknown)}. {column}: {known}", INVALID_PARAMETER_VALUE
            )
        return self.table[self.table[column].isin(values)].reset_index(drop=True)


mlflow.models.set_model(Table())
