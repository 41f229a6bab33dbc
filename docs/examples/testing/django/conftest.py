"""Django's settings for these tests; a project has a settings module, and pytest-django to load it."""

import django
from django.conf import settings

settings.configure(DEFAULT_FROM_EMAIL="shop@shop.test", USE_TZ=True)
django.setup()
