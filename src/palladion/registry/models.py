"""Models by name."""

from sqlalchemy import insert, select

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.rows import ModelRow
from palladion.registry.transaction import Transaction

_COLUMNS = (tables.model.c.name, tables.model.c.owner, tables.model.c.format, tables.model.c.created)


class Models:
    """The models of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, name: str, *, owner: str, model_format: str) -> ModelRow:
        """Register a model without versions yet. Raises ConflictError if the name is taken."""
        names.slug(name, what="the name of a model")
        names.label(owner, what="the owner of a model")
        names.slug(model_format, what="the format of a model")
        if self.find(name) is not None:
            raise ConflictError(
                f"there is a model {name!r} already", "take another name, or protect the file as its next version"
            )
        model = ModelRow(name, owner, model_format, self._transaction.now())
        self._transaction.change(
            insert(tables.model).values(name=name, owner=owner, format=model_format, created=model.created)
        )
        return model

    def find(self, name: str) -> ModelRow | None:
        """The model of that name, or None."""
        row = self._transaction.first(select(*_COLUMNS).where(tables.model.c.name == name))
        return None if row is None else ModelRow(*row)

    def get(self, name: str) -> ModelRow:
        """The model of that name. Raises NotFoundError with the names that look like it."""
        model = self.find(name)
        if model is None:
            raise names.not_found("model", name, (model.name for model in self.all()))
        return model

    def all(self) -> list[ModelRow]:
        """Every model, by name."""
        return [ModelRow(*row) for row in self._transaction.all(select(*_COLUMNS).order_by(tables.model.c.name))]

    def lock(self, name: str) -> None:
        """Let nobody else add to this model until the transaction ends. Raises NotFoundError."""
        # SQLite has locked the whole file by now, and leaves FOR UPDATE out
        query = select(tables.model.c.name).where(tables.model.c.name == name).with_for_update()
        if self._transaction.first(query) is None:
            self.get(name)
