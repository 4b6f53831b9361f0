"""The name of the policy that is used when nobody names one: apart from the policies, which take long to import."""

DEFAULT = "shortest-aged"
