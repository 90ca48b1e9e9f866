"""An installation in which something of everything exists, for tests that go over all pages."""

import json
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts import service as accounts
from app.batches import guidelines
from app.database import Database
from app.external import service as external
from app.external.drafts import Draft, Wanted
from app.models import (
    ApiToken,
    ExternalDataset,
    PoolPrompt,
    RewardModel,
    TokenScope,
    TrainingRun,
    TrainingSet,
    Worker,
    WorkState,
)
from app.pool import drafts as pool_drafts
from app.pool import service as pool
from app.pool.reading import Tags
from app.settings import Settings
from contract.recipe import Recipe
from contract.training_set import MemberKind, SetCounts, SetDefinition, SetMember
from contract.vocabulary import MarginScheme, Objective, Strength
from tests import factories
from tests.app.queue_rows import make_failed


@dataclass(frozen=True)
class Texts:
    """What people, models and machines wrote."""

    long: str = "How do I make tea?"
    name: str = "Bea"
    """Of people, tokens, workers and checkpoints: at most 100 characters."""


@dataclass
class Installation:
    """The keys of what exists, by the names that routes give them, and the secrets that were handed out."""

    parameters: dict[str, list[str]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def addresses(self, path: str) -> list[str]:
        """A route's path with every combination of its parameters' values."""
        found = [path]
        for name, values in self.parameters.items():
            for mark in (f"{{{name}}}", f"{{{name}:path}}"):
                found = [one.replace(mark, value) for one in found for value in (values if mark in one else [""])]
        return found


def make_installation(database: Database, settings: Settings, texts: Texts = Texts()) -> Installation:
    """A frozen batch with its dataset, an open one with a pair to judge and judged ones, a run and a reward model."""
    made = Installation()
    with database.write() as session:
        bea = factories.make_person(session, texts.name)
        checkpoint = factories.make_checkpoint(session, texts.name)
        for objective in Objective:
            guidelines.add_version(session, objective, texts.long)
        frozen = factories.make_week(session, bea, conversations=4)
    dataset = factories.freeze(database, frozen, settings)
    with database.write() as session:
        batch = factories.make_open_batch(session, curriculum=texts.long, system_prompt=texts.long)
        (annotation,) = factories.make_judged(session, batch, bea, texts.long)
        annotation.rationale = texts.long
        conversation = factories.make_conversation(session, batch, bea)
        comparison = factories.make_comparison(session, conversation, texts.long)
        factories.make_ready(session, comparison, (texts.long, f"{texts.long} Really."))
        worker = Worker(
            name=texts.name,
            hostname="h",
            engine=texts.name,
            device="cpu",
            dtype="float32",
            max_pairs=8,
            can_sample=True,
            can_train=True,
        )
        worker.checkpoints = {checkpoint.digest: checkpoint.name}
        worker.refused = {texts.name: texts.long}
        worker.last_error = texts.long
        session.add(worker)
        session.flush()
        _, failed = make_failed(session, batch, bea, error=texts.long)
        failed.worker_id = worker.id
        run = TrainingRun(
            name="helpfulness-1",
            objective=Objective.HELPFULNESS,
            checkpoint_id=checkpoint.id,
            recipe=Recipe(objective=Objective.HELPFULNESS).model_dump(mode="json"),
            worker_id=worker.id,
            state=WorkState.DONE,
            log=texts.long,
            error=texts.long,
            datasets=[dataset],
        )
        session.add(run)
        session.flush()
        reward_model = RewardModel(
            name=run.name, run_id=run.id, objective=run.objective, path=f"/models/{texts.name}", digest="0" * 64
        )
        session.add(reward_model)
        made.secrets["worker token"] = accounts.create_api_token(session, texts.name, TokenScope.WORKER)
        made.secrets["datasets token"] = accounts.create_api_token(session, texts.name, TokenScope.DATASETS)
        made.secrets["link"] = accounts.issue_sign_in_link(session, bea, hours=1)
        prompt = PoolPrompt(objective=Objective.SAFETY, turns=[texts.long], digest="0" * 64, source=texts.name)
        session.add(prompt)
        session.flush()
        imported, waiting = _make_external(session, settings, texts)
        # The same name, so that one address leads to both.
        described = SetDefinition(
            members=(
                SetMember(kind=MemberKind.EXTERNAL, name=imported.name, manifest_sha256=imported.manifest_sha256),
            ),
            margin_scheme=MarginScheme.SMALL,
        )
        counts = SetCounts(
            member=imported.name, train=1, test=0, filtered=0, held_out_elsewhere=0, by_strength={Strength.BETTER: 1}
        )
        training_set = TrainingSet(
            name=imported.name,
            digest=described.digest(),
            definition=described.model_dump(mode="json"),
            counts=[counts.model_dump(mode="json")],
        )
        session.add(training_set)
        token = session.scalars(select(ApiToken).limit(1)).one()
        made.parameters = {
            "person_id": [str(bea.id)],
            "token_id": [str(token.id)],
            "token": ["unknown"],
            "comparison_id": [str(comparison.id), str(annotation.comparison_id)],
            "conversation_id": [str(conversation.id)],
            "annotation_id": [str(annotation.id)],
            "prompt_id": [str(prompt.id)],
            "job_id": [str(failed.id)],
            "checkpoint_id": [str(checkpoint.id)],
            "number": [str(frozen.number), str(batch.number)],
            "name": [dataset.name, run.name, imported.name],
            "import_id": [str(waiting.id)],
            "form": ["hh", "jsonl"],
            "objective": ["helpfulness"],
            "split": ["train"],
            "path": ["README.md", "manifest.json"],
        }
    tags = Tags(Objective.SAFETY, words=(texts.name[:40],))
    prompts = pool.check(database, settings, pool_drafts.Wanted(tags=tags, source=texts.name), f"{texts.long}?")
    made.parameters["draft_id"] = [str(prompts.id)]
    return made


def _make_external(session: Session, settings: Settings, texts: Texts) -> tuple[ExternalDataset, Draft]:
    """An external dataset, and a file that waits to be imported."""
    row = {"prompt": texts.long, "chosen": texts.long, "rejected": f"{texts.long} No.", "strength": "better"}
    file = settings.data_dir / "external.jsonl"
    file.write_text(json.dumps(row), encoding="utf-8")
    drafts = [
        external.check(Wanted(name=name, licence=texts.name, source=texts.long), file, "external.jsonl", settings)
        for name in ("elsewhere", "waiting")
    ]
    return external.confirm(session, drafts[0], settings), drafts[1]
