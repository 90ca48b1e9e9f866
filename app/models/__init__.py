"""All tables. Importing this package makes the metadata complete."""

from app.models.annotations import Annotation, AnnotationRevision, Skip, SkipReason
from app.models.base import Base, new_id, now
from app.models.batches import Batch, BatchState, BatchTarget, BatchVariant, Guideline
from app.models.checkpoints import Checkpoint
from app.models.comparisons import (
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    PromptSource,
    Response,
    SamplingJob,
)
from app.models.datasets import PreferenceDataset, SplitPrompt
from app.models.people import ApiToken, AuditEvent, Person, PersonRole, SignInLink, SignInSession, TokenScope
from app.models.review import GoldComparison, Qualification, QualificationTest, Review, Verdict
from app.models.training import Evaluation, RewardModel, TrainingPoint, TrainingRun, TrainingRunDataset
from app.models.work import Leased, Worker, WorkState

__all__ = [
    "Annotation",
    "AnnotationRevision",
    "ApiToken",
    "AuditEvent",
    "Base",
    "Batch",
    "BatchState",
    "BatchTarget",
    "BatchVariant",
    "Checkpoint",
    "Comparison",
    "ComparisonState",
    "Conversation",
    "ConversationState",
    "Evaluation",
    "GoldComparison",
    "Guideline",
    "Leased",
    "Person",
    "PersonRole",
    "PreferenceDataset",
    "PromptSource",
    "Qualification",
    "QualificationTest",
    "Response",
    "Review",
    "RewardModel",
    "SamplingJob",
    "SignInLink",
    "SignInSession",
    "Skip",
    "SkipReason",
    "SplitPrompt",
    "TokenScope",
    "TrainingPoint",
    "TrainingRun",
    "TrainingRunDataset",
    "Verdict",
    "WorkState",
    "Worker",
    "new_id",
    "now",
]
