"""The web app: annotators judge, admins run the week, trainers export and train. Never imports torch."""
