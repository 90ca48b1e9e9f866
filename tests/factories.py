"""Makes rows for tests: people, checkpoints, an open batch, comparisons that are ready or annotated."""

import hashlib
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts import service as accounts
from app.annotation import days
from app.annotation.days import Work
from app.batches import guidelines
from app.batches import service as batches
from app.batches.service import BatchSettings
from app.checkpoints import service as checkpoints
from app.comparisons.asking import ask
from app.database import Database
from app.datasets import freezing
from app.datasets import service as datasets
from app.models import (
    Annotation,
    AnnotationRevision,
    Assignment,
    AssignmentState,
    Batch,
    BatchState,
    Checkpoint,
    Comparison,
    ComparisonState,
    Conversation,
    Person,
    PersonRole,
    PreferenceDataset,
    PromptSource,
    Response,
    now,
)
from app.sampling import service as sampling
from app.settings import Settings
from contract.checkpoint_files import CheckpointFiles
from contract.vocabulary import FinishReason, Objective, Side, Strength


def make_person(session: Session, name: str = "Ann", role: PersonRole = PersonRole.ANNOTATOR) -> Person:
    return accounts.get_or_create_person(session, name, role)


def checkpoint_files(name: str = "chat-1") -> CheckpointFiles:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return CheckpointFiles(
        name=name,
        architecture="LlamaForCausalLM",
        digest=digest,
        tokenizer_digest=digest,
        template_digest=digest,
        weight_bytes=1000,
    )


def make_checkpoint(session: Session, name: str = "chat-1") -> Checkpoint:
    """A registered checkpoint that is the current one."""
    checkpoint = checkpoints.register(session, checkpoint_files(name))
    return checkpoints.promote(session, checkpoint, for_open_batch=True)


def make_open_batch(session: Session, **settings: object) -> Batch:
    """A batch that is open this week, drawing from the current checkpoint."""
    checkpoint = checkpoints.current(session) or make_checkpoint(session)
    opens_at = now() - timedelta(hours=1)
    defaults = {"opens_at": opens_at, "closes_at": opens_at + timedelta(days=7)}
    batch = batches.create(session, BatchSettings(**(defaults | settings)))  # type: ignore[arg-type]
    batches.pin_checkpoint(session, batch, checkpoint)
    batch.state = BatchState.OPEN
    batch.opened_at = opens_at
    for objective in Objective:
        guidelines.current(session, objective)
    session.flush()
    return batch


def make_conversation(
    session: Session, batch: Batch, annotator: Person | None, objective: Objective = Objective.HELPFULNESS
) -> Conversation:
    """A conversation of an annotator, or from the pool without one."""
    source = PromptSource.WRITTEN if annotator is not None else PromptSource.POOL
    annotator_id = annotator.id if annotator is not None else None
    conversation = Conversation(batch_id=batch.id, objective=objective, annotator_id=annotator_id, source=source)
    session.add(conversation)
    session.flush()
    return conversation


def make_comparison(
    session: Session, conversation: Conversation, prompt: str = "How do I make tea?", turn: int = 1
) -> Comparison:
    """A comparison whose responses are still to be sampled, with its author's place at it."""
    batch = session.get_one(Batch, conversation.batch_id)
    comparison = ask(session, batch, conversation, turn=turn, prompt=prompt)
    if conversation.annotator_id is not None:
        session.add(Assignment(comparison_id=comparison.id, annotator_id=conversation.annotator_id))
    session.flush()
    return comparison


def make_pool_comparison(
    session: Session, batch: Batch, prompt: str = "How do I make tea?", texts: tuple[str, str] = ("Hot.", "Cold.")
) -> Comparison:
    """A comparison from the pool that is ready and handed to nobody yet."""
    comparison = make_comparison(session, make_conversation(session, batch, None), prompt)
    make_ready(session, comparison, texts)
    return comparison


def make_ready(
    session: Session, comparison: Comparison, texts: tuple[str, str] = ("Boil water.", "No idea.")
) -> dict[Side, Response]:
    """Give a comparison both responses, as if a worker had drawn them."""
    session.refresh(comparison, ["responses"])
    for response, text in zip(comparison.responses, texts, strict=True):
        response.text = text
        response.token_ids = [5, 6, 2]
        response.prompt_tokens = 12
        response.completion_tokens = 3
        response.finish_reason = FinishReason.STOP
        response.sum_logprob = -1.5
        response.first_token_s = 0.1
        response.total_s = 0.5
        response.engine = "test/1"
        response.dtype = "float32"
        response.device = "cpu"
    job = sampling.queries.job_of(session, comparison.id)
    if job is not None:
        sampling.leases.end(job, sampling.WorkState.DONE, at=now())
    comparison.state = ComparisonState.READY
    comparison.ready_at = now()
    for assignment in session.scalars(select(Assignment).where(Assignment.comparison_id == comparison.id)):
        assignment.shown_at = now()
    session.flush()
    return {response.side: response for response in comparison.responses}


def make_annotation(
    session: Session,
    comparison: Comparison,
    annotator: Person,
    *,
    side: Side = Side.A,
    strength: Strength = Strength.BETTER,
    chosen_safe: bool | None = None,
    rejected_safe: bool | None = None,
    is_primary: bool = True,
) -> Annotation:
    """Judge a comparison that is ready."""
    session.refresh(comparison, ["responses"])
    chosen = comparison.response(side)
    annotation = Annotation(
        comparison_id=comparison.id,
        objective=comparison.objective,
        annotator_id=annotator.id,
        chosen_response_id=chosen.id,
        guideline_id=guidelines.current(session, comparison.objective).id,
        seconds=12.5,
        strength=strength,
        chosen_safe=chosen_safe,
        rejected_safe=rejected_safe,
        is_primary=is_primary,
    )
    session.add(annotation)
    session.flush()
    session.add(
        AnnotationRevision(
            annotation_id=annotation.id,
            revision=1,
            chosen_response_id=chosen.id,
            author_id=annotator.id,
            strength=strength,
            chosen_safe=chosen_safe,
            rejected_safe=rejected_safe,
        )
    )
    comparison.state = ComparisonState.ANNOTATED
    place = session.get(Assignment, (comparison.id, annotator.id))
    if place is None:
        place = Assignment(comparison_id=comparison.id, annotator_id=annotator.id)
        session.add(place)
    place.state = AssignmentState.DONE
    place.held_until = None
    work = Work(annotations=1, comparisons=int(is_primary), seconds=annotation.seconds)
    batch = session.get_one(Batch, comparison.batch_id)
    days.count(session, batch, comparison.objective, annotator.id, at=annotation.created_at, work=work)
    session.flush()
    return annotation


def make_judged(
    session: Session,
    batch: Batch,
    annotator: Person,
    *prompts: str,
    objective: Objective = Objective.HELPFULNESS,
    strength: Strength = Strength.BETTER,
    side: Side = Side.A,
    safe: tuple[bool, bool] = (True, False),
) -> list[Annotation]:
    """A whole conversation whose turns are all judged; ``safe`` labels chosen and rejected of a safety one."""
    conversation = make_conversation(session, batch, annotator, objective)
    labels: dict[str, bool] = {}
    if objective is Objective.SAFETY:
        labels = {"chosen_safe": safe[0], "rejected_safe": safe[1]}
    annotations = []
    for turn, prompt in enumerate(prompts, start=1):
        comparison = make_comparison(session, conversation, prompt, turn)
        make_ready(session, comparison, (f"A says {prompt}", f"B says {prompt}"))
        annotations.append(make_annotation(session, comparison, annotator, side=side, strength=strength, **labels))
    return annotations


def make_week(session: Session, annotator: Person, *, conversations: int = 8, word: str = "tea") -> Batch:
    """An open batch with judged conversations of both objectives, one and two turns long, of all strengths."""
    batch = make_open_batch(session)
    strengths = list(Strength)
    for number in range(conversations):
        prompts = [f"What is {word} number {number}?", "And why?"][: 1 + number % 2]
        for objective in Objective:
            make_judged(
                session,
                batch,
                annotator,
                *(f"{prompt} ({objective})" for prompt in prompts),
                objective=objective,
                strength=strengths[number % len(strengths)],
                side=list(Side)[number % 2],
                safe=(number % 3 < 2, number % 3 < 1),
            )
    return batch


def freeze(database: Database, batch: Batch, settings: Settings, *, at: datetime | None = None) -> PreferenceDataset:
    """What the reconciler does with a batch whose review is over; again, a new version."""
    with database.write() as session:
        batch = session.get_one(Batch, batch.id)
        batch.frozen_at = at or batch.frozen_at or now()
        if batch.state is not BatchState.FROZEN:
            batch.state = BatchState.IN_REVIEW
        freezing.request(session, batch, at=batch.frozen_at)
    freezing.work_off(database, settings, now() + timedelta(days=365))
    with database.read() as session:
        versions = [dataset for dataset, of in datasets.all_datasets(session) if of.id == batch.id]
    return max(versions, key=lambda dataset: dataset.version)
